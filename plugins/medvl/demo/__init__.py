"""The whole pipeline on drawn images and tiny checkpoints: what `medvl demo` runs on a machine without a GPU."""
