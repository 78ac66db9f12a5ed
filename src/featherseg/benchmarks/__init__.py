"""What `featherseg bench` measures, each part in a file of its own."""
