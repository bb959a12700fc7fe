def pose_cache_inputs(run, config):
    return ""
