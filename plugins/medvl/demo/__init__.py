"""The whole road on drawn pictures and tiny checkpoints: what `medvl demo` runs on a machine without a GPU."""
