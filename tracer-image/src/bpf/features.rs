//! What this kernel can do, for `doctor`.
