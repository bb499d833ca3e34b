"""Options and their names, in a module without heavy imports: the command line checks them before it imports torch."""

COLOR_FIXES = ("none", "wavelet", "adain")
"""Of `color_fix.fix_color`."""
DTYPES = ("float32", "float16", "bfloat16", "auto")
"""Types of the networks; ``"auto"``: the denoiser in bfloat16 on CPUs that compute in it, else float32."""
WRITE_FORMATS = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"},
    **{".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"},
}
"""By the suffix of the file."""
READ_SUFFIXES = (*WRITE_FORMATS, ".bmp", ".gif")
LARGEST_SCALE = 16.0
"""Enlargement up to which a result is resized, if a model enlarges less."""
LARGEST_NOISE = 100.0
"""Factor on the noise, or weight of it, up to which all stays finite in any type; 1 is the model's own."""
DEFAULT_TILE_OVERLAP = 16
"""LR pixels that neighbouring tiles share and are blended over."""
