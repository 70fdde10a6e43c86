//! What commands about users and roles do.

use super::{
    Machine,
    command::{Effect, Outcome, Reply},
};
use crate::{
    auth::{self, Author, Request},
    engine::Batch,
    types::{Error, Index},
};

impl Machine {
    pub(super) fn auth(
        &mut self,
        author: &Author,
        request: Request,
        index: Index,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Error> {
        let user = match &request {
            Request::Authenticate { user, .. } => user.clone(),
            _ => String::new(),
        };
        let mut state = self.shared.state.write();
        let was_enabled = state.auth.is_enabled();
        let reply = state.auth.apply(author, request, index, batch)?;
        if let auth::Reply::Token(token) = &reply
            && !token.is_empty()
        {
            let revision = state.auth.revision();
            outcome.effects.push(Effect::TokenIssued { token: token.clone(), user, revision });
        }
        if !batch.is_empty() {
            if was_enabled && !state.auth.is_enabled() {
                outcome.effects.push(Effect::AuthDisabled);
            }
            // While nobody else sees the state: who is told of the new one has not been let through by the old.
            self.shared.note_auth(&state);
            outcome.effects.push(Effect::AuthChanged);
        }
        Ok(Reply::Auth(reply))
    }
}
