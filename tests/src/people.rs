//! The people of a provider: alice and bob, who both have to sign what its routers are to believe, each with a key in a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// They make keys, and sign as the first state of the authority that they are the people.
pub(crate) const CEREMONY: &str = r#"
for name in alice bob; do ssh-keygen -q -t ed25519 -N '' -C $name -f $name; done
{
    echo epoch 1
    for name in alice bob; do echo "person $name $(cat $name.pub)"; done
    echo group both all alice bob
    echo rule gateway both self-approve
    echo rule authority both self-approve
} > authority
echo yes | "$1" propose genesis first --state authority --key alice
echo yes | "$1" approve first --genesis --key bob
"$1" activate first --genesis --out first.activation
"#;

/// Bob goes and carol comes, which the three of them sign; `$2` is the server's data directory, and what follows goes to `authority add`.
const CHANGE: &str = r#"
program=$1 data=$2
shift 2
if ! test -e change.activation; then
    ssh-keygen -q -t ed25519 -N '' -C carol -f carol
    {
        echo epoch 2
        for name in alice carol; do echo "person $name $(cat $name.pub)"; done
        echo group both all alice carol
        echo rule gateway both self-approve
        echo rule authority both self-approve
    } > next
    echo yes | "$program" propose authority change --authority authority --state next --key alice
    echo yes | "$program" approve change --authority authority --key bob
    echo yes | "$program" approve change --authority authority --key carol
    "$program" --data-dir "$data" log add change
    "$program" activate change --trust "$data/image/trust.policy" --out change.activation
fi
"$program" --data-dir "$data" authority add change.activation "$@"
"#;

/// Whose signature is nobody's any more goes out of the folder, and carol's comes in.
const APPROVE_AGAIN: &str = r#"
for file in "$3"/approve-*.sig; do rm "$file"; done
echo yes | "$1" approve "$3" --authority next --key carol
"$1" activate "$3" --trust "$2/image/trust.policy" --out again.activation
"$1" --data-dir "$2" gateway add again.activation
"#;

/// Alice and bob, and the folder in which they sign.
#[derive(Debug, Clone)]
pub struct People {
    program: PathBuf,
    folder: PathBuf,
}

impl People {
    /// Has alice and bob make their keys and their first state.
    pub fn gather(netns: &Netns, program: &Path, folder: &Path) -> Result<Self> {
        Self::gather_by(netns, program, folder, CEREMONY)
    }

    /// The same by a script, whose `$1` is the program and which leaves `authority` and `first.activation`.
    pub fn gather_by(netns: &Netns, program: &Path, folder: &Path, ceremony: &str) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        let people = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
        };
        people.type_in(netns, ceremony, &[])?;
        Ok(people)
    }

    /// Bob goes, carol comes, and the server with this data directory is told, with more words for it.
    pub fn change(&self, netns: &Netns, data: &Path, more: &[&str]) -> Result<()> {
        let data = data.to_string_lossy();
        self.type_in(netns, CHANGE, &[&[data.as_ref()], more].concat())
    }

    /// Those who are there now approve a gateway of which one of them has no word yet.
    pub fn approve_again(&self, netns: &Netns, data: &Path, name: &str) -> Result<()> {
        let data = data.to_string_lossy();
        self.type_in(netns, APPROVE_AGAIN, &[&data, name])
    }

    /// Types a script in their folder; its `$1` is the program, and what follows are these words.
    pub fn type_in(&self, netns: &Netns, script: &str, words: &[&str]) -> Result<()> {
        let program = self.program.to_string_lossy();
        let script = format!("cd '{}'\n{script}", self.folder.display());
        let argv = ["sh", "-ec", &script, "sh", program.as_ref()];
        netns.run(&[&argv[..], words].concat())?;
        Ok(())
    }

    /// Where they sign.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What `init --genesis` takes.
    pub fn genesis(&self) -> PathBuf {
        self.folder.join("first.activation")
    }

    /// What a shell is to do, from whichever folder, that puts a gateway on the books of the server with this data directory: alice
    /// proposes it, bob approves it, and it goes into the log.
    pub fn adding_a_gateway(&self, data: &Path, name: &str, record: &[&str]) -> String {
        let (program, data) = (self.program.display(), data.display());
        let mut propose =
            format!("propose gateway {name} --authority authority --key alice --name {name}");
        for word in record {
            // A String takes all that is written.
            let _infallible = write!(propose, " '{word}'");
        }
        [
            format!("(cd '{}'", self.folder.display()),
            format!("echo yes | {program} {propose}"),
            format!("echo yes | {program} approve {name} --authority authority --key bob"),
            format!("{program} --data-dir '{data}' log add {name}"),
            format!("{program} activate {name} --trust '{data}/image/trust.policy' --out {name}.activation"),
            format!("{program} --data-dir '{data}' gateway add {name}.activation)"),
        ]
        .join(" && ")
    }
}
