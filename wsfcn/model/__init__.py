"""The network, one file a part, named as in the paper."""
