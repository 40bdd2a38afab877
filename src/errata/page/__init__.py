"""The edit page: people correct responses in a browser, minimally, and nothing they type is lost.

It needs the extra ``errata[page]``. Text of models is hostile here, and so is every request: pages are static files
held in memory, all text is text to the browser, and no path from a request reaches the file system.
"""
