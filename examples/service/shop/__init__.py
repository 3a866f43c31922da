"""A shop that takes orders, packs them in the background, and sends news to its visitors."""
