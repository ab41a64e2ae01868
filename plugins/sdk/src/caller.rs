//! Who is calling, for functions that need to know.

use crate::Error;
use crate::wit::context;
pub use crate::wit::context::Identity;

/// The person and device behind the request; 401 `unauthenticated` without one.
pub fn caller() -> Result<Identity, Error> {
    context::caller().ok_or_else(|| Error::unauthenticated("unauthenticated", "an access token is needed"))
}
