"""3D image and text encoders: building, saving and `from_pretrained`."""
