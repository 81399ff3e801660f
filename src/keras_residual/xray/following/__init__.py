"""What `XrayCallback` consists of: when it looks, and where it writes."""
