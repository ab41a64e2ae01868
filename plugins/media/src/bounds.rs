//! All bounds of the media service.

/// Images are looked through in memory, in bytes.
pub const IMAGE_BYTES_MAX: u64 = 20 * 1024 * 1024;
/// Of an image, in pixels.
pub const SIDE_MAX: u32 = 8_192;
pub const PIXELS_MAX: u64 = 40_000_000;
/// Looked at to see what a file is, in bytes.
pub const HEAD_BYTES: u32 = 4_096;
/// Read from or written to a blob at once, in bytes: what the host lets pass.
pub const PIECE_BYTES: usize = 1024 * 1024;
/// Uploads that one run of the schedule gives up.
pub const SWEPT_PER_RUN: u32 = 100;
/// Where the settings are missing.
pub const QUOTA_BYTES: u64 = 1024 * 1024 * 1024;
pub const UPLOAD_TTL_S: u64 = 24 * 60 * 60;
pub const URL_TTL_S: u64 = 15 * 60;
