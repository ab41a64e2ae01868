//! How the functions of `pushes` interfaces send their frames: the manifest's `[[push]]` entries, resolved against the functions' records. Knows no engine.

use super::manifest::{PushClass, PushFrame};
use echo_contract::codec::PushCodec;
use echo_contract::wit::Function;

/// How a function of a `pushes` interface sends its frames.
pub struct FrameBinding {
    pub codec: PushCodec,
    /// None where the frames keep theirs.
    pub event: Option<String>,
    /// Ephemeral where it replaces: there it means nothing.
    pub class: PushClass,
    pub receipt: Option<usize>,
    pub subject: Option<usize>,
    pub state: Vec<usize>,
    pub replaces: Option<usize>,
}

impl FrameBinding {
    /// Errors: why the manifest and the function do not go together.
    pub fn find(frame: &PushFrame, function: &Function) -> Result<Self, String> {
        let codec = PushCodec::compile(function).map_err(|error| error.to_string())?;
        if codec.has_users() == frame.replaces.is_some() {
            return Err("a function with users has a class, and one without them has replaces".to_owned());
        }
        let key = |name: &Option<String>| name.as_deref().map(|name| codec.key_field(name)).transpose();
        Ok(Self {
            event: frame.event(),
            class: frame.class.unwrap_or(PushClass::Ephemeral),
            receipt: key(&frame.receipt)?,
            subject: key(&frame.subject)?,
            state: frame.state.iter().map(|name| codec.key_field(name)).collect::<Result<_, _>>()?,
            replaces: key(&frame.replaces)?,
            codec,
        })
    }
}
