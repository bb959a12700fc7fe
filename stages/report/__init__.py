"""Report: the numbers and pictures a person would ask for, in one offline HTML page and one JSON file."""
