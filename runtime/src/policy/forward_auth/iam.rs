//! IAM policies as Lambda authorizers return them: statements about `execute-api:Invoke` on route ARNs.

use serde_json::Value;

/// One statement.
#[derive(Clone, Debug, PartialEq)]
struct Statement {
    allow: bool,
    actions: Vec<String>,
    resources: Vec<String>,
}

/// A policy document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document(Vec<Statement>);

impl Document {
    /// Reads a document. What is not understood (`NotAction`, `NotResource`, `Condition`) makes it none: a statement
    /// that is half read could allow too much.
    pub fn parse(value: &Value) -> Option<Self> {
        let statements = match value.get("Statement")? {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        statements.iter().map(statement).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether the policy allows this route. A denial wins; nothing is allowed without a statement.
    pub fn allows(&self, arn: &str) -> bool {
        let fits = |s: &&Statement| {
            s.actions.iter().any(|a| glob(&a.to_ascii_lowercase(), "execute-api:invoke"))
                && s.resources.iter().any(|r| glob(r, arn))
        };
        let mut fitting = self.0.iter().filter(fits).peekable();
        fitting.peek().is_some() && fitting.all(|s| s.allow)
    }

    /// Whether there is any route that it could allow.
    pub fn may_allow(&self) -> bool {
        self.0.iter().any(|s| s.allow)
    }
}

fn statement(value: &Value) -> Option<Statement> {
    let members = value.as_object()?;
    let known = |name: &String| matches!(name.as_str(), "Sid" | "Effect" | "Action" | "Resource");
    if !members.keys().all(known) {
        return None;
    }
    let texts = |name: &str| match members.get(name)? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let allow = match members.get("Effect")?.as_str()? {
        "Allow" => true,
        "Deny" => false,
        _ => return None,
    };
    Some(Statement { allow, actions: texts("Action")?, resources: texts("Resource")? })
}

/// Whether `text` is as `pattern` says, in which `*` is any characters and `?` any one. Takes time in proportion to
/// both lengths at most.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut i, mut k) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while k < t.len() {
        match p.get(i) {
            Some(b'*') => {
                star = Some((i, k));
                i += 1;
            }
            Some(c) if *c == b'?' || *c == t[k] => {
                i += 1;
                k += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    i = at + 1;
                    k = from + 1;
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:execute-api:us-east-1:000000000000:gw/$default/GET/orders/7";

    #[test]
    fn documents_are_judged_as_iam_judges_them() {
        let check = |statements: Value, want: Option<bool>| {
            let document = Document::parse(&json!({"Version": "2012-10-17", "Statement": statements}));
            assert_eq!(document.map(|d| d.allows(ARN)), want, "{statements}");
        };
        let s = |effect: &str, resource: Value| json!({"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource});
        check(json!([s("Allow", json!("*"))]), Some(true));
        check(s("Allow", json!(ARN)), Some(true));
        check(json!([s("Allow", json!(["x", "arn:aws:execute-api:*:*:gw/*/GET/orders/?"]))]), Some(true));
        check(json!([s("Allow", json!("arn:aws:execute-api:*:*:gw/*/POST/*"))]), Some(false));
        check(json!([s("Allow", json!("*")), s("Deny", json!("*/GET/orders/*"))]), Some(false));
        check(json!([s("Deny", json!("*/POST/*")), s("Allow", json!("*"))]), Some(true));
        check(json!([]), Some(false));
        check(json!([{"Action": ["x:y", "execute-api:*"], "Effect": "Allow", "Resource": "*"}]), Some(true));
        check(json!([{"Action": "EXECUTE-API:invoke", "Effect": "Allow", "Resource": "*"}]), Some(true));
        check(json!([{"Action": "s3:GetObject", "Effect": "Allow", "Resource": "*"}]), Some(false));
        check(json!([{"Effect": "Allow", "Resource": "*"}]), None);
        check(json!([{"Action": "*", "Effect": "allow", "Resource": "*"}]), None);
        check(json!([{"Action": "*", "Effect": "Allow", "NotResource": "x"}]), None);
        check(json!([{"Action": "*", "Effect": "Allow", "Resource": "*", "Condition": {}}]), None);
        check(json!([{"Action": "*", "Effect": "Allow", "Resource": [1]}]), None);
        check(json!("Allow"), None);
        assert!(Document::parse(&json!({})).is_none());
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, want) in [
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("a*b", "ab", true),
            ("a*b", "axxb", true),
            ("a*b", "axxbc", false),
            ("a*b*c", "abbbc", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("*a", "aaab", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
        // Would take years if it were tried in all ways.
        assert!(!glob(&"*a".repeat(50), &"a".repeat(49)));
    }
}
