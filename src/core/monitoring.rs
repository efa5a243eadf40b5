//! What each monitor is shown of the commands that run: MONITOR, as far as the user of the monitor may read.
//!
//! Invariants:
//! - The rules of the moment decide, both when a line is written and when it is shown.
//! - A monitor whose user may see everything costs no look at a command.

use std::sync::Arc;

use crate::access::{KeyUse, Need, User, Wish};
use crate::core::permission::{add_channels, add_databases};
use crate::core::{Command, Mail, Server};
use crate::events::monitors::{Lines, Monitor};
use crate::resp::Args;

/// Whether a user may see a call of anybody: what it names can be read with one of the user's selectors.
fn may_see(user: &User, command: &Command, args: Args<'_>, db: u32) -> bool {
    let mut wish = Wish::default();
    if !command.keys.0.is_empty() {
        // Which of the arguments are names of keys is not known otherwise.
        let Some(uses) = command.keys.uses(args) else { return false };
        let how = KeyUse { reads: true, writes: false };
        wish.keys.extend(uses.into_iter().map(|(place, _)| Need { place, name: args.at(place), how }));
    }
    add_channels(&mut wish, command, args);
    add_databases(&mut wish, command, args, db);
    user.check(&wish).is_ok()
}

/// What a monitor may see.
#[derive(Debug)]
pub enum Sight {
    /// Every command.
    All,
    /// What this user may read.
    Limited(Arc<User>),
    /// Nothing: the connection or its user is gone.
    Nothing,
}

impl Server {
    /// What a monitor may see by now.
    pub fn sight(&self, client: u64) -> Sight {
        let Some(record) = self.clients.get(client) else { return Sight::Nothing };
        let name = record.labels.lock().user_name().to_vec();
        match self.users.get(&name) {
            None => Sight::Nothing,
            Some(user) if user.sees_everything() => Sight::All,
            Some(user) => Sight::Limited(user),
        }
    }

    /// Says of the line behind `begin`, which shows this call, which of the monitors may see it that may not see all.
    pub fn choose_monitors(&self, lines: &mut Lines, begin: usize, command: &Command, args: Args<'_>, db: u32) {
        self.monitors.in_order(|monitors| {
            for monitor in monitors {
                if let Sight::Limited(user) = self.sight(monitor.client)
                    && may_see(&user, command, args, db)
                {
                    lines.show_to(monitor.client, begin);
                }
            }
        });
    }

    /// Shows all monitors lines. None sees them before `block` of the log is safe, because they tell of its content.
    pub fn show(&self, lines: &Lines, block: u64) {
        let all = lines.all();
        self.monitors.in_order(|monitors| {
            for &Monitor { client, worker } in monitors {
                let line = match self.sight(client) {
                    Sight::All => Arc::clone(&all),
                    Sight::Limited(_) => lines.of(client),
                    Sight::Nothing => continue,
                };
                if !line.is_empty() {
                    self.mailboxes.post(worker, Mail::Shown { client, line, block });
                }
            }
        });
    }
}
