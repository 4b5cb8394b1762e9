//! Operators who are too few, sign twice, sign without a touch or something else, or are in a hurry; and a server that puts what they made into its
//! store all the same. Keys are ssh-keygen's, the token is OpenSSH's own without hardware; the judge is the router's agent.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::process::Output;
use std::time::Duration;

use lab::{
    Lab, Office, Programs, Router, StreamReader, Witness, exit, refused, said, tools, wait_until,
    wrong_clock,
};
use trust::{Activation, Approval, GatewayRecord, Proposal, SshSig, Verdict};

const PATIENCE: Duration = Duration::from_secs(20);
const FLAGS_FROM_THE_END: usize = 5;

/// Two of alice, who has two keys, bob, dan, whose key is on a token, and erin, whose token does without a touch. Carol only proposes.
fn ceremony(rules: &str) -> String {
    let token = tools::token().unwrap();
    let head = format!("export SSH_SK_PROVIDER='{}'\n", token.display());
    let keys = r#"
for name in alice alice2 bob carol mallory; do ssh-keygen -q -t ed25519 -N '' -C $name -f $name; done
ssh-keygen -q -t ed25519-sk -w "$SSH_SK_PROVIDER" -N '' -C dan -f dan
ssh-keygen -q -t ed25519-sk -w "$SSH_SK_PROVIDER" -O no-touch-required -N '' -C erin -f erin
{
    echo epoch 1
    for key in alice alice2 bob carol dan erin; do echo "person ${key%2} $(cat $key.pub)"; done
    echo group noc 2 alice bob dan erin
"#;
    let signing = r#"
} > authority
echo yes | "$1" propose genesis first --state authority --key carol
for key in alice bob; do echo yes | "$1" approve first --genesis --key $key; done
"$1" activate first --genesis --out first.activation
"#;
    let rules: String = rules.lines().map(|rule| format!("echo {rule}\n")).collect();
    [&head, keys, &rules, signing].concat()
}

/// Carol proposes a gateway, alice and bob approve it; `$3` is its name, `$4` its key.
const PROPOSE: &str = r#"
echo yes | "$1" propose gateway $3 --authority authority --key carol --name $3 --pop pop1 --shard 1 --endpoint 198.18.1.2:51820 \
    --inner 10.64.0.1,fd64::1 --dns sdns://AQ --ed25519 $4 --wg IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=
for key in alice bob; do echo yes | "$1" approve $3 --authority authority --key $key; done
"$1" --data-dir "$2" log add $3
"#;
/// `$4` is what else `activate` is told.
const ACTIVATE: &str = r#""$1" activate $3 --trust "$2/image/trust.policy" --out $3.activation $4"#;
const ADD: &str = r#""$1" --data-dir "$2" gateway add $3.activation"#;

struct Scene {
    router: Router,
    office: Office,
    lab: Lab,
}

impl Scene {
    fn of(lab: Lab, programs: &Programs, office: Office) -> Self {
        let router = Router::flash(&lab, programs, &office).unwrap();
        Self {
            router,
            office,
            lab,
        }
    }

    fn propose(&self, name: &str) {
        let key = StreamReader::default().public();
        self.office.people_type(PROPOSE, &[name, &key]).unwrap();
    }

    fn activation(&self, name: &str) -> Activation {
        let file = self.office.people().join(format!("{name}.activation"));
        Activation::from_bytes(&fs::read(file).unwrap()).unwrap()
    }

    /// What ssh-keygen signs with a key that is in the folder.
    fn sign(&self, key: &str, purpose: &str, proposal: &[u8]) -> Vec<u8> {
        fs::write(self.office.people().join("bytes"), proposal).unwrap();
        let script =
            r#"export SSH_SK_PROVIDER="$5"; ssh-keygen -q -Y sign -n $4 -f $3 < bytes > signature"#;
        let token = tools::token().unwrap();
        let token = token.to_string_lossy();
        self.office
            .people_type(script, &[key, purpose, &token])
            .unwrap();
        let armored = fs::read_to_string(self.office.people().join("signature")).unwrap();
        SshSig::dearmor(&armored).unwrap()
    }

    /// What a key signs, in the name of a person.
    fn approval(&self, whole: &Activation, key: &str, person: &str) -> Approval {
        let signature = self.sign(key, "approve-gateway@culvert", &whole.proposal);
        signed(whole, person, signature)
    }

    fn enrol(&self) -> Output {
        self.router
            .try_enrol(&self.office.claim().unwrap())
            .unwrap()
    }

    #[track_caller]
    fn refuses(&self, words: &str) {
        let words = format!("the people's word does not suffice: {words}");
        refused(&self.enrol(), exit::UNAVAILABLE, &[&words]).unwrap();
    }

    #[track_caller]
    fn takes(&self) {
        let enrolled = self.enrol();
        assert!(enrolled.status.success(), "{}", said(&enrolled));
    }

    /// Who has the server leases a gateway that the server itself does not take.
    fn lease_anyway(&self, activation: &Activation) {
        let read = Proposal::from_bytes(&activation.proposal).unwrap();
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let gateway = hex(&GatewayRecord::from_bytes(&read.body).unwrap().id());
        let id = hex(&Proposal::id(&activation.proposal));
        let leaf = format!("(SELECT leaf FROM proposal WHERE proposal_id = x'{id}')");
        self.office
            .sql(&format!(
                "INSERT INTO gateway VALUES (x'{gateway}', 'gw1', 'pop1', {leaf}, 0);
                 INSERT INTO gateway_shard VALUES (1, x'{gateway}');"
            ))
            .unwrap();
        self.office.replace_activation(activation).unwrap();
    }

    fn enrol_at(&self, time: &str) -> Output {
        let file = self.router.dir().join("code");
        fs::write(&file, self.office.claim().unwrap()).unwrap();
        let enrol = self.router.run_line().replace(" run ", " enrol ");
        let (clock, file) = (wrong_clock(time), file.display());
        let script = format!("{clock}\nexec {enrol} --claim-file {file}");
        self.lab.router.output(&["sh", "-c", &script]).unwrap()
    }
}

/// A signature as who has the server puts it into an activation.
fn signed(whole: &Activation, person: &str, sshsig: Vec<u8>) -> Approval {
    Approval {
        proposal_id: Proposal::id(&whole.proposal),
        verdict: Verdict::Approve,
        person: person.to_owned(),
        sshsig,
    }
}

/// The proposer's word and these approvals.
fn with(whole: &Activation, approvals: &[&Approval]) -> Activation {
    let is_carols = |one: &&Approval| one.person == "carol";
    let proposed = whole.approvals.iter().filter(is_carols);
    Activation {
        approvals: proposed.chain(approvals.iter().copied()).cloned().collect(),
        ..whole.clone()
    }
}

/// What comes beside alice's approval, and what the router says of both.
fn forgeries(
    scene: &Scene,
    whole: &Activation,
    other: &Activation,
) -> Vec<(Option<Approval>, &'static str)> {
    let by = |key: &str, person: &str| scene.approval(whole, key, person);
    let alice = find(whole, "alice");
    let mut flagged = by("erin", "erin");
    let flags = flagged.sshsig.len() - FLAGS_FROM_THE_END;
    assert_eq!(flagged.sshsig[flags], 0, "where the touch is noted");
    flagged.sshsig[flags] = 1;
    let rejected = scene.sign("bob", "reject-gateway@culvert", &whole.proposal);
    vec![
        (None, "noc have not approved it: 1 of them did"),
        (Some(by("alice2", "alice")), "alice has signed twice"),
        (
            Some(by("alice2", "bob")),
            "a signature in the name of bob is by a key that is not theirs",
        ),
        (
            Some(Approval {
                person: "bob".to_owned(),
                ..alice
            }),
            "a signature in the name of bob is by a key that is not theirs",
        ),
        (
            Some(by("mallory", "mallory")),
            "mallory is nobody that the authority knows",
        ),
        (
            Some(by("mallory", "bob")),
            "a signature in the name of bob is by a key that is not theirs",
        ),
        (
            Some(by("erin", "erin")),
            "the signature of erin does not count: the token was not touched for this signature",
        ),
        (
            Some(flagged),
            "the signature of erin does not count: the key did not sign these bytes",
        ),
        (
            Some(find(other, "bob")),
            "an approval by bob is of another proposal",
        ),
        (
            Some(signed(whole, "bob", find(other, "bob").sshsig)),
            "the signature of bob does not count: the key did not sign these bytes",
        ),
        (
            Some(signed(whole, "bob", rejected)),
            "the signature of bob does not count: the signature is for",
        ),
        (
            Some(by("carol", "carol")),
            "noc have not approved it: 1 of them did",
        ),
    ]
}

fn find(of: &Activation, person: &str) -> Approval {
    let mut approvals = of.approvals.iter();
    approvals.find(|one| one.person == person).unwrap().clone()
}

#[test]
fn no_signature_that_is_missing_doubled_untouched_or_for_something_else_makes_a_gateway() {
    let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
    let rules = "rule gateway noc\nrule authority noc";
    let office = Office::init_for(&lab, &programs, &ceremony(rules)).unwrap();
    let _server = office.start().unwrap();
    let scene = Scene::of(lab, &programs, office);
    for name in ["gw1", "gw2"] {
        scene.propose(name);
        scene.office.people_type(ACTIVATE, &[name, ""]).unwrap();
    }
    scene.office.people_type(ADD, &["gw1"]).unwrap();
    let (whole, other) = (scene.activation("gw1"), scene.activation("gw2"));
    let alice = find(&whole, "alice");

    for (second, words) in forgeries(&scene, &whole, &other) {
        let approvals: Vec<&Approval> = [&alice].into_iter().chain(&second).collect();
        let forged = with(&whole, &approvals);
        scene.office.replace_activation(&forged).unwrap();
        scene.refuses(words);
    }

    let agent = scene.router.start().unwrap();
    assert!(scene.router.status().unwrap()["lease"].is_null());
    agent.terminate().unwrap();
    let touched = with(&whole, &[&alice, &scene.approval(&whole, "dan", "dan")]);
    scene.office.replace_activation(&touched).unwrap();
    scene.takes();
}

#[test]
fn a_gateway_with_other_keys_than_people_signed_is_in_no_log() {
    let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
    let rules = "rule gateway noc\nrule authority noc";
    let office = Office::init_for(&lab, &programs, &ceremony(rules)).unwrap();
    let _server = office.start().unwrap();
    let scene = Scene::of(lab, &programs, office);
    scene.propose("gw1");
    scene.office.people_type(ACTIVATE, &["gw1", ""]).unwrap();
    scene.office.people_type(ADD, &["gw1"]).unwrap();
    let whole = scene.activation("gw1");

    let mut read = Proposal::from_bytes(&whole.proposal).unwrap();
    let mut record = GatewayRecord::from_bytes(&read.body).unwrap();
    record.wg_pub = [9; 32];
    read.body = record.to_bytes();
    let forged = Activation {
        proposal: read.to_bytes(),
        ..whole.clone()
    };
    scene.office.replace_activation(&forged).unwrap();
    let words =
        "the statement is not in the authority log: the entry is not in the checkpoint's tree";
    refused(&scene.enrol(), exit::UNAVAILABLE, &[words]).unwrap();

    scene.office.replace_activation(&whole).unwrap();
    scene.takes();
}

const DELAYED: &str = "rule gateway noc min-delay 3600\nrule authority noc";

#[test]
fn a_gateway_before_its_delay_is_taken_by_no_server_and_by_no_router_that_is_leased_it_all_the_same()
 {
    let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
    let office = Office::init_for(&lab, &programs, &ceremony(DELAYED)).unwrap();
    let _server = office.start().unwrap();
    let scene = Scene::of(lab, &programs, office);
    scene.propose("gw1");
    let early = scene.office.people_type(ACTIVATE, &["gw1", ""]);
    let told = format!("{:#}", early.unwrap_err());
    assert!(told.contains("it stands in the log since"), "{told}");
    let forced = r#"set -- "$@" "--at $(($(date +%s) + 3600))""#;
    let forced = format!("{forced}\n{ACTIVATE}");
    scene.office.people_type(&forced, &["gw1"]).unwrap();
    let added = scene.office.people_type(ADD, &["gw1"]);
    let told = format!("{:#}", added.unwrap_err());
    assert!(told.contains("it stands in the log since"), "{told}");

    scene.lease_anyway(&scene.activation("gw1"));
    scene.refuses("it stands in the log since");
    let late = scene.enrol_at("+3601");
    assert!(late.status.success(), "{}", said(&late));
}

#[test]
fn a_server_with_its_clock_ahead_ends_no_delay_where_a_witness_has_to_cosign() {
    for is_witnessed in [true, false] {
        let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
        let witness = Witness::init(&lab, &programs, ("w1", 8601)).unwrap();
        let lines = format!("{}group both all lab w1\nquorum both\n", witness.line());
        let lines = if is_witnessed { &lines } else { "quorum lab\n" };
        let office =
            Office::init_witnessed_for(&lab, &programs, lines, &ceremony(DELAYED)).unwrap();
        witness.learn(&office).unwrap();
        let _witness = witness.start().unwrap();
        let server = office.start().unwrap();
        let scene = Scene::of(lab, &programs, office);
        scene.propose("gw1");
        let forced = r#"set -- "$@" "--at $(($(date +%s) + 3600))""#;
        let forced = format!("{forced}\n{ACTIVATE}");
        scene.office.people_type(&forced, &["gw1"]).unwrap();
        scene.lease_anyway(&scene.activation("gw1"));
        server.terminate().unwrap();

        let _ahead = scene.office.start_at("+3700").unwrap();
        let enrolled = scene.enrol();
        if is_witnessed {
            let words = "the lease begins at";
            refused(&enrolled, exit::UNAVAILABLE, &[words]).unwrap();
        } else {
            // Its own word is all that such a router has about the time: docs/threat-model.md says so.
            assert!(enrolled.status.success(), "{}", said(&enrolled));
        }
    }
}

/// Carol proposes that mallory is the people, and alice alone approves it.
const USURP: &str = r#"
{
    echo epoch 2
    echo "person mallory $(cat mallory.pub)"
    echo rule gateway mallory self-approve
    echo rule authority mallory self-approve
} > next
echo yes | "$1" propose authority usurp --authority authority --state next --key carol
for key in alice mallory; do echo yes | "$1" approve usurp --authority authority --key $key; done
"$1" --data-dir "$2" log add usurp
"#;

#[test]
fn a_server_gives_its_routers_no_other_people_and_keeps_none_from_its_lease_by_trying() {
    let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
    let rules = "rule gateway noc\nrule authority noc";
    let office = Office::init_for(&lab, &programs, &ceremony(rules)).unwrap();
    let _server = office.start().unwrap();
    let scene = Scene::of(lab, &programs, office);
    scene.propose("gw1");
    scene.office.people_type(ACTIVATE, &["gw1", ""]).unwrap();
    scene.office.people_type(ADD, &["gw1"]).unwrap();
    scene.office.people_type(USURP, &[]).unwrap();
    let folder = scene.office.people().join("usurp");
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let proposal = read("proposal");
    let sign = |key: &str, verdict: &str| {
        scene.sign(key, &format!("{verdict}-authority@culvert"), &proposal)
    };
    let mut usurped = Activation {
        proof: String::from_utf8(read("proof")).unwrap(),
        approvals: Vec::new(),
        proposal: proposal.clone(),
    };
    let carols = Approval {
        verdict: Verdict::Propose,
        ..signed(&usurped, "carol", sign("carol", "propose"))
    };
    usurped.approvals = vec![
        carols,
        signed(&usurped, "alice", sign("alice", "approve")),
        signed(&usurped, "mallory", sign("mallory", "approve")),
    ];
    let bytes = usurped.to_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let newest = "(SELECT max(leaf) FROM proposal)";
    scene
        .office
        .sql(&format!("INSERT INTO authority_state VALUES (2, {newest})"))
        .unwrap();

    let put = |bytes: &str| {
        let sql = format!("UPDATE proposal SET activation = {bytes} WHERE leaf = {newest}");
        scene.office.sql(&sql).unwrap();
    };
    let gateways = "(SELECT activation FROM proposal p JOIN gateway g ON g.leaf = p.leaf)";
    for state in [&format!("x'{hex}'"), gateways, "x'00'"] {
        put(state);
        scene.takes();
        let agent = scene.router.start().unwrap();
        let status = wait_until("the agent tells its lease", PATIENCE, || {
            let status = scene.router.status()?;
            Ok((!status["lease"].is_null()).then_some(status))
        });
        assert_eq!(status.unwrap()["authority"], 1);
        agent.terminate().unwrap();
    }
}
