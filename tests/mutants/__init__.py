"""Classic bugs of mail servers, planted one at a time, each of them caught by a test that exists for its own reason."""
