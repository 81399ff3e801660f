"""An X-ray as an HTML page that needs no network: the net block by block, pictures by depth, plain words."""
