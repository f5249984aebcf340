//! What the tasks of a group do: opaque to the core, read by server and worker.

use std::sync::Arc;

use prost::Message;

use crate::DecodeError;
use crate::common::required;
use crate::worker::GroupAction;

/// Encodes a group's action.
#[must_use]
pub fn encode_group_action(action: &GroupAction) -> Arc<[u8]> {
    Arc::from(action.encode_to_vec())
}

/// Decodes a group's action. Its `action` and that one's `kind` are there.
///
/// # Errors
/// If the bytes are something else, or an action of a kind that this version does not know.
pub fn decode_group_action(bytes: &[u8]) -> Result<GroupAction, DecodeError> {
    let group = GroupAction::decode(bytes).map_err(DecodeError::malformed("group action"))?;
    required("an action", group.action.as_ref().and_then(|action| action.kind.as_ref()))?;
    Ok(group)
}
