def delete_temporary_arrays(run):
    """Light stereo leaves nothing."""
