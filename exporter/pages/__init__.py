"""Pages for a browser: one self-contained HTML file each, which needs no network and no script to be read.

Rendered from results, never part of them: an older result can be rendered again by a newer modelpress. What lies
here is no part of an export's fingerprint, so another look of a page makes no export anew.
"""
