"""What other programs' metadata say, in A1111's labels.

The texts of a file (`sdrt.images.places`) go to the rows of `table`, each of which reads one program's form. A row
gives a `Made`: the program's name, both prompts, and settings with A1111's labels. What has no label there gets
another name, so that `--from` can say that it differs.

The package sd-parsers (0.6, MIT, 28 kB, needs only Pillow) reads some of these forms. It was judged and not used. It
does not read SwarmUI and AVIF; it reads EXIF in UTF-16 of one order only, and a graph of ComfyUI only beside its
workflow, without values that come through other nodes. It makes a tuple of every pixel to look for hidden texts (100
bytes each), decompresses without a limit, and opens files with all of Pillow's formats.
"""
