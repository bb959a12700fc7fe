"""Which photos are matched with which: proposal, retrieval, matching, expansion."""
