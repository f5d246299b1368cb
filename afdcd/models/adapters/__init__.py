"""Other libraries' networks as backbones."""
