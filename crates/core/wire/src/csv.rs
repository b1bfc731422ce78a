//! Readings as CSV (SPEC.md 3.2): comma or semicolon, BOM, CRLF, quotes; headers matched by the class.
