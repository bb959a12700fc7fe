def inputs(run, config):
    return ""
