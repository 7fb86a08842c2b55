"""What is looked at before training, so that whatever a recipe asks for is what trains."""
