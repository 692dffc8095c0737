"""Networks: built by name or factory, the devices they run on, and forward passes over them."""
