"""Where image files hold texts: chunks of a PNG, EXIF, XMP, comments, and the lowest bits of pixels.

`file_texts.read_texts` reads all of them except the bits of pixels. `stealth` reads those if there is nothing else.
`sdrt.images.programs` knows what the texts mean.
"""
