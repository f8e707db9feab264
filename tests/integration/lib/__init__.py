"""A private libvirt host, throw-away guests and a content oracle, for tests."""
