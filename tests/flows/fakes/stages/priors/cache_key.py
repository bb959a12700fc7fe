def priors_key_inputs(run, config):
    return ""
