"""What `auto` stands for: precision, halo and tile, measured on the workers."""
