"""What is on disk: numpy, h5py and safetensors, never torch."""
