"""Modules of networks: by timm's name, or from a function of one's own."""
