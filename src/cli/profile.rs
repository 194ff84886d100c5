//! `assent profile`: what the rules are and where they come from.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Outcome, output};
use crate::consent::Profile;

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// List the profiles that ship with the program
    List,
    /// Print each rule of a profile, where it comes from and what it does
    Explain {
        /// cn, eu, us-il, us-tx or open
        name: String,
    },
}

pub(super) fn run(command: &ProfileCommand, json: bool) -> Outcome {
    match command {
        ProfileCommand::List => {
            let names: Vec<&str> = Profile::names().collect();
            if json {
                say!("{}", serde_json::json!(names));
            } else {
                for name in names {
                    say!("{name}");
                }
            }
        }
        ProfileCommand::Explain { name } => explain(name, json)?,
    }
    Ok(Exit::Ok)
}

fn explain(name: &str, json: bool) -> Result<(), Failure> {
    let profile = Profile::named(name).map_err(Failure::usage)?;
    let rules = profile.explain();
    if json {
        return output::print_value(&rules);
    }
    say!("profile {name}");
    for rule in rules {
        say!();
        say!("{} = {}", rule.rule, rule.value);
        say!("  source  {}", rule.source);
        say!("  {}", rule.en);
        say!("  {}", rule.zh);
    }
    say!();
    say!(
        "In every profile, whatever it says: no enrolment without a consent record for one purpose"
    );
    say!(
        "and one scope, none that is bundled, a way in without the face at every gate, none in private"
    );
    say!("rooms, no identity numbers, erasure on withdrawal.");
    say!(
        "任何配置下均不可关闭：一次同意仅限一个目的和一个范围；不得捆绑；每个通道都有非人脸通行方式；"
    );
    say!("私密空间不得设置；不得使用身份证号等个人标识；撤回同意即删除。");
    Ok(())
}
