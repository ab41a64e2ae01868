//! The gateway as a client sees it, over fake services.
