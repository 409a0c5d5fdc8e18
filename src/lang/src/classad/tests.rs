//! Tables of cases.

use super::*;

fn eval(text: &str) -> String {
    let expr = Expr::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    Context::new(None, None, 0).evaluate(&expr).to_string()
}

#[test]
fn values_are_those_of_htcondor() {
    for (text, value) in [
        ("error && false", "error"),
        ("false && error", "false"),
        ("undefined && false", "false"),
        ("\"a\" == \"A\"", "true"),
        ("1 =!= 1.0", "true"),
        ("true + 1", "2"),
        ("1 / 0", "error"),
        ("round(2.5)", "2"),
        ("{1} =?= {1}", "error"),
        ("[a = 1; b = a + 1].b", "2"),
        ("[a = a].a", "undefined"),
        ("{[x = 1], [x = 2]}.x", "{ 1,2 }"),
        ("{10, 20}[1]", "20"),
        ("a ?: 5", "5"),
        ("1 << 70", "64"),
        ("strcat(1.5, true, {1})", "\"1.500000000000000E+00true{ 1 }\""),
    ] {
        assert_eq!(eval(text), value, "{text}");
    }
}

#[test]
fn two_ads_see_each_other() {
    let job = Ad::parse("[RequestMemory = 100; Requirements = TARGET.Memory >= RequestMemory && Cpus > 1]").unwrap();
    let machine = Ad::parse("[Memory = 200; Cpus = 2; Start = TARGET.RequestMemory < MY.Memory]").unwrap();
    assert_eq!(Context::new(Some(&job), Some(&machine), 0).attribute("requirements"), Value::Boolean(true));
    assert_eq!(Context::new(Some(&machine), Some(&job), 0).attribute("START"), Value::Boolean(true));
    assert_eq!(Context::new(Some(&job), None, 0).attribute("Requirements"), Value::Undefined);
}

#[test]
fn a_requirement_falls_into_clauses() {
    let expr = Expr::parse("(TARGET.Memory >= RequestMemory && (MY.X =?= 1 && b)) && (c || d)").unwrap();
    let clauses: Vec<_> = expr.clauses().iter().map(|clause| clause.old_syntax().to_string()).collect();
    assert_eq!(clauses, ["TARGET.Memory >= RequestMemory", "MY.X =?= 1", "b", "(c || d)"]);
    let names = |names: &[Text]| names.iter().map(|name| name.to_str_lossy().into_owned()).collect::<Vec<_>>();
    let references = expr.references();
    assert_eq!((names(&references.my), names(&references.target)), (vec!["X".to_owned()], vec!["Memory".to_owned()]));
    assert_eq!(names(&references.plain), ["b", "c", "d", "RequestMemory"]);
}
