//! The functions of expressions.

mod environment;
mod exprs;
mod lists;
mod numbers;
mod patterns;
mod strings;
mod times;

use super::Expr;
use super::eval::{Cx, Fail, Machine, Outcome, Val};
use super::expr::Call;

macro_rules! functions {
    ($($function:ident = $($name:literal)|+),* $(,)?) => {
        /// A function that is known.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in super::super) enum Function {
            $($function),*
        }

        /// Their names, in lower case.
        const NAMES: &[(&str, Function)] = &[$($(($name, Function::$function)),+),*];
    };
}
functions! {
    IsUndefined = "isundefined", IsError = "iserror", IsString = "isstring", IsInteger = "isinteger", IsReal = "isreal", IsList = "islist",
    IsClassAd = "isclassad", IsBoolean = "isboolean", IsAbsTime = "isabstime", IsRelTime = "isreltime",
    Member = "member", IdenticalMember = "identicalmember", Size = "size", Sum = "sum", Avg = "avg", Min = "min", Max = "max",
    AnyCompare = "anycompare", AllCompare = "allcompare", EvalInEachContext = "evalineachcontext", CountMatches = "countmatches",
    StrCat = "strcat", Join = "join", ToUpper = "toupper", ToLower = "tolower", Substr = "substr", StrCmp = "strcmp", StrICmp = "stricmp",
    VersionCmp = "versioncmp", VersionLe = "versionle", VersionLt = "versionlt", VersionGe = "versionge", VersionGt = "versiongt", VersionEq = "versioneq",
    VersionInRange = "version_in_range",
    StringListsIntersect = "stringlistsintersect", StringListSize = "stringlistsize", StringListSum = "stringlistsum", StringListAvg = "stringlistavg",
    StringListMin = "stringlistmin", StringListMax = "stringlistmax", StringListMember = "stringlistmember", StringListIMember = "stringlistimember",
    StringListSubsetMatch = "stringlistsubsetmatch", StringListISubsetMatch = "stringlistisubsetmatch",
    Split = "split", SplitUserName = "splitusername", SplitSlotName = "splitslotname",
    Int = "int", Real = "real", String = "string", Bool = "bool", AbsTime = "abstime", RelTime = "reltime",
    Time = "time", CurrentTime = "currenttime", TimeZoneOffset = "timezoneoffset", DayTime = "daytime", GetYear = "getyear", GetMonth = "getmonth",
    GetDayOfYear = "getdayofyear", GetDayOfMonth = "getdayofmonth", GetDayOfWeek = "getdayofweek", GetDays = "getdays", GetHours = "gethours",
    GetMinutes = "getminutes", GetSeconds = "getseconds", SplitTime = "splittime", FormatTime = "formattime", Interval = "interval",
    Floor = "floor", Ceiling = "ceil" | "ceiling", Round = "round", Pow = "pow", Quantize = "quantize", Random = "random",
    Regexp = "regexp", RegexpMember = "regexpmember", RegexpS = "regexps", Replace = "replace", ReplaceAll = "replaceall",
    StringListRegexpMember = "stringlist_regexpmember",
    EnvV1ToV2 = "envv1tov2", MergeEnvironment = "mergeenvironment", ListToArgs = "listtoargs", ArgsToList = "argstolist",
    Unparse = "unparse", Unresolved = "unresolved", UserHome = "userhome", UserMap = "usermap",
    IfThenElse = "ifthenelse", Eval = "eval", Debug = "debug",
}

impl Function {
    /// The function of that name, in whatever case.
    pub(in super::super) fn of(name: &[u8]) -> Option<Self> {
        NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, function)| *function)
    }
}

impl<'a> Machine<'a> {
    pub(super) fn call(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        use Function::*;
        let Some(function) = call.function else {
            return Ok(Val::Error);
        };
        match function {
            IsUndefined | IsError | IsString | IsInteger | IsReal | IsList | IsClassAd | IsBoolean | IsAbsTime
            | IsRelTime => self.is_type(function, call, cx),
            Member => self.member(call, cx, super::expr::Binary::Equal),
            IdenticalMember => self.member(call, cx, super::expr::Binary::Is),
            Size => self.size(call, cx),
            Sum | Avg => self.sum(call, cx, function == Avg),
            Min => self.extreme(call, cx, super::expr::Binary::Less),
            Max => self.extreme(call, cx, super::expr::Binary::Greater),
            AnyCompare | AllCompare => self.compare_elements(call, cx, function == AllCompare),
            EvalInEachContext | CountMatches => self.in_each_context(call, cx, function == CountMatches),
            StrCat => self.strcat(call, cx),
            Join => self.join(call, cx),
            ToUpper | ToLower => self.change_case(call, cx, function == ToUpper),
            Substr => self.substr(call, cx),
            StrCmp | StrICmp => self.compare_strings(call, cx, function == StrICmp),
            VersionCmp | VersionLe | VersionLt | VersionGe | VersionGt | VersionEq => {
                self.compare_versions(function, call, cx)
            }
            VersionInRange => self.version_in_range(call, cx),
            StringListsIntersect => self.string_lists_intersect(call, cx),
            StringListSize => self.string_list_size(call, cx),
            StringListSum | StringListAvg | StringListMin | StringListMax => {
                self.string_list_summary(function, call, cx)
            }
            StringListMember | StringListIMember | StringListSubsetMatch | StringListISubsetMatch => {
                self.string_list_member(function, call, cx)
            }
            Split => self.split(call, cx),
            SplitUserName | SplitSlotName => self.split_at(call, cx, function == SplitSlotName),
            Int => self.convert(call, cx, |_, value| Ok(numbers::to_integer(value))),
            Real => self.convert(call, cx, |_, value| Ok(numbers::to_real(value))),
            String => self.convert(call, cx, Self::text_value),
            Bool => self.convert(call, cx, |_, value| Ok(numbers::to_boolean(value))),
            Floor | Ceiling | Round => self.round(function, call, cx),
            Pow => self.pow(call, cx),
            Quantize => self.quantize(call, cx),
            Random => self.random(call, cx),
            IfThenElse => self.if_then_else(call, cx),
            Eval => self.eval_text(call, cx),
            Regexp => self.regexp(call, cx),
            RegexpMember => self.regexp_member(call, cx),
            RegexpS | Replace | ReplaceAll => self.substitute(function, call, cx),
            StringListRegexpMember => self.string_list_regexp_member(call, cx),
            EnvV1ToV2 => self.env_v1_to_v2(call, cx),
            MergeEnvironment => self.merge_environment(call, cx),
            ListToArgs => self.list_to_args(call, cx),
            ArgsToList => self.args_to_list(call, cx),
            Unparse => self.unparse(call),
            Unresolved => self.unresolved(call, cx),
            UserHome => self.user_home(call, cx),
            UserMap => self.user_map(call, cx),
            Debug => self.convert(call, cx, |_, value| Ok(value)),
            AbsTime | RelTime => self.make_time(call, cx, function == RelTime),
            Time | CurrentTime | TimeZoneOffset | DayTime => self.clock(function, call),
            GetYear | GetMonth | GetDayOfYear | GetDayOfMonth | GetDayOfWeek | GetDays | GetHours | GetMinutes
            | GetSeconds => self.time_part(function, call, cx),
            SplitTime => self.split_time(call, cx),
            FormatTime => self.format_time(call, cx),
            Interval => self.interval(call, cx),
        }
    }

    /// Evaluates all arguments in order; nothing if there are not `N` of them.
    fn arguments<const N: usize>(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Result<Option<[Val<'a>; N]>, Fail> {
        Ok(self.between(call, cx, N, N)?.and_then(|values| values.try_into().ok()))
    }

    /// Evaluates all arguments in order; nothing if there are fewer than `least` or more than `most`.
    fn between(
        &mut self,
        call: &'a Call,
        cx: Cx<'_, 'a>,
        least: usize,
        most: usize,
    ) -> Result<Option<Vec<Val<'a>>>, Fail> {
        if call.arguments.len() < least || call.arguments.len() > most {
            return Ok(None);
        }
        call.arguments.iter().map(|argument| self.eval(argument, cx)).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Evaluates the only argument.
    fn single(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Result<Option<Val<'a>>, Fail> {
        match &*call.arguments {
            [only] => self.eval(only, cx).map(Some),
            _ => Ok(None),
        }
    }

    fn convert(
        &mut self,
        call: &'a Call,
        cx: Cx<'_, 'a>,
        how: impl FnOnce(&mut Self, Val<'a>) -> Outcome<'a>,
    ) -> Outcome<'a> {
        match self.single(call, cx)? {
            Some(value) => how(self, value),
            None => Ok(Val::Error),
        }
    }

    fn is_type(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |_, value| {
            Ok(Val::Boolean(match function {
                Function::IsUndefined => matches!(value, Val::Undefined),
                Function::IsError => matches!(value, Val::Error),
                Function::IsString => matches!(value, Val::String(_)),
                Function::IsInteger => matches!(value, Val::Integer(_)),
                Function::IsReal => matches!(value, Val::Real(_)),
                Function::IsBoolean => matches!(value, Val::Boolean(_)),
                Function::IsAbsTime => matches!(value, Val::Absolute(_)),
                Function::IsRelTime => matches!(value, Val::Relative(_)),
                Function::IsClassAd => matches!(value, Val::Ad(_)),
                _ => value.elements().is_some(),
            }))
        })
    }

    fn if_then_else(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let [condition, then, otherwise] = &*call.arguments else {
            return Ok(Val::Error);
        };
        let condition = self.eval(condition, cx)?;
        match (condition.truth(), condition) {
            (Some(true), _) => self.eval(then, cx),
            (Some(false), _) => self.eval(otherwise, cx),
            (None, Val::Undefined) => Ok(Val::Undefined),
            (None, _) => Ok(Val::Error),
        }
    }

    fn eval_text(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| {
            let Val::String(text) = machine.text_value(value)? else {
                return Ok(Val::Error);
            };
            if cx.depth == 0 {
                return Err(Fail);
            }
            machine.work(text.len())?;
            let Some(expr) = Expr::parse_for_eval(text, machine.context.zone) else {
                return Ok(Val::Error);
            };
            let expr = machine.expr(expr, text.len())?;
            machine.eval(expr, Cx { lexical: machine.scope, ..cx.deeper() })
        })
    }

    /// A value as text: strings as they are, other things as they are written.
    fn text_value(&mut self, value: Val<'a>) -> Outcome<'a> {
        match value {
            Val::Undefined | Val::Error | Val::String(_) => Ok(value),
            Val::Absolute(time) => self.string(super::time::show_absolute(time)),
            Val::Relative(seconds) => {
                self.string(super::time::show_relative(f64::from(super::number::to_i32(seconds))))
            }
            value => {
                let text = self.to_value(value).to_string();
                self.work(text.len() / 16)?;
                self.string(text)
            }
        }
    }
}
