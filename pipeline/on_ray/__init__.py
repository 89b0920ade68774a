"""What `pipeline.ray_executor` is made of: see docs/ray.md for who runs where."""
