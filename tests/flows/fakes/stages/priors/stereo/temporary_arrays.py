def forget_work(run):
    """Light stereo leaves nothing."""
