//! What each command of a DAG file does.

use super::*;

impl Parser<'_> {
    pub(super) fn about_dag(
        &mut self,
        scope: &mut Scope,
        words: &str,
        line: &Line<'_>,
        reader: &mut Reader<'_>,
        start: Place,
    ) -> Done {
        let lexer = &mut Lexer::new(words);
        let place = Place { at: line.place(0), ..start };
        let Some((keyword, _)) = lexer.word()? else { return Ok(()) };
        let upper = keyword.to_ascii_uppercase().replace('-', "_");
        match upper.as_str() {
            "JOB" => self.node_command(scope, Kind::Job, lexer, reader, place),
            "FINAL" => self.node_command(scope, Kind::Final, lexer, reader, place),
            "PROVISIONER" => self.node_command(scope, Kind::Provisioner, lexer, reader, place),
            "SERVICE" => self.node_command(scope, Kind::Service, lexer, reader, place),
            "SUBDAG" => {
                let external = need(lexer, "`EXTERNAL`")?;
                if !is(&external.0, "EXTERNAL") {
                    return Err(Fault::new(external.1, "`SUBDAG` is not followed by `EXTERNAL`")
                        .expected("`SUBDAG EXTERNAL NAME FILE`"));
                }
                self.node_command(scope, Kind::Subdag, lexer, reader, place)
            }
            "SPLICE" => self.splice(scope, lexer, place),
            "SUBMIT_DESCRIPTION" => self.submit_description(scope, lexer, reader, place),
            "INCLUDE" => self.include(scope, lexer, place),
            "REJECT" => {
                end(lexer)?;
                Err(Fault::new(0, "the DAG is marked with `REJECT`"))
            }
            "CONFIG" | "DOT" | "NODE_STATUS_FILE" | "JOBSTATE_LOG" | "ENV" | "SET_JOB_ATTR" => {
                self.whole_dag(scope, &upper, lexer, place)
            }
            "PARENT" | "WEAK" | "SCRIPT" | "RETRY" | "ABORT_DAG_ON" | "VARS" | "PRIORITY" | "PRE_SKIP"
            | "TOLERANCE" | "DONE" | "CATEGORY" | "MAXJOBS" | "SAVE_POINT_FILE" | "CONNECT" | "PIN_IN" | "PIN_OUT" => {
                scope.deferred.push(start);
                Ok(())
            }
            _ => {
                let near = nearest(&keyword, COMMANDS).map(|near| format!("did you mean `{near}`?"));
                Err(Fault::new(0, format!("`{}` is no command of a DAG file", show(keyword.as_bytes())))
                    .expected("a command such as `JOB` or `PARENT`")
                    .hint(near))
            }
        }
    }

    /// `JOB NAME DESCRIPTION [DIR DIRECTORY] [NOOP] [DONE]` and its kin.
    pub(super) fn node_command(
        &mut self,
        scope: &Scope,
        kind: Kind,
        lexer: &mut Lexer<'_>,
        reader: &mut Reader<'_>,
        place: Place,
    ) -> Done {
        let (name, at) = need(lexer, "the node's name")?;
        let what = if kind == Kind::Subdag { "a DAG file" } else { "a submit description" };
        let (description, from) = match lexer.unquoted()? {
            Some((word, at)) if !word.is_empty() => (word, at),
            _ => return Err(Fault::new(lexer.end(), format!("node `{name}` has no {}", &what[2..])).expected(what)),
        };
        let (description, rest) = match inline_end(&description, from)? {
            Some(mark) if kind != Kind::Subdag => {
                let (text, after) = inline(reader, &mark, from)?;
                (Description::Inline(text), Some(after))
            }
            _ if kind == Kind::Subdag => (Description::Dag(description.into_owned()), None),
            _ => (Description::File(description.into_owned()), None),
        };
        let (directory, noop, mut done) = match &rest {
            // Where in the line these words stand, nobody can tell from here.
            Some(after) => node_words(&mut Lexer::new(after)).map_err(|fault| Fault { at: 0, ..fault })?,
            None => node_words(lexer)?,
        };
        for reserved in ["PARENT", "CHILD", "ALL_NODES"] {
            if name.eq_ignore_ascii_case(reserved) {
                return Err(Fault::new(at, format!("`{name}` can't be the name of a node: it is a keyword")));
            }
        }
        if name.contains('+') && !self.context.any_names {
            return Err(Fault::new(at, format!("node name `{}` has a `+`", show(name.as_bytes())))
                .expected("no `+`: it parts the names of splices and their nodes"));
        }
        if let Some(mark) = name.find(['"', '\'']) {
            return Err(Fault::new(at, format!("node name `{}` has a quotation mark", show(name.as_bytes())))
                .expected(format!("a name without `{}`", &name[mark..=mark])));
        }
        let single = |dag: &Dag| dag.nodes.iter().position(|node| node.kind == kind);
        if matches!(kind, Kind::Final | Kind::Provisioner)
            && let Some(other) = single(&self.dag)
        {
            let word = if kind == Kind::Final { "FINAL" } else { "PROVISIONER" };
            let name = self.dag.name(number(other));
            return Err(Fault::new(
                0,
                format!("a second `{word}` node; `{name}` is one{}", self.defined(number(other), place)),
            ));
        }
        if kind == Kind::Final && scope.prefix.ends_with('+') {
            return Err(
                Fault::new(0, "a splice can't have a `FINAL` node").expected("`FINAL` in the outermost DAG file")
            );
        }
        if done && !matches!(kind, Kind::Job | Kind::Subdag) {
            self.warn(
                place,
                Fault::new(0, format!("node `{name}` can't be `DONE`: only `JOB` and `SUBDAG` nodes can")),
            );
            done = false;
        }
        let full = format!("{}{name}", scope.prefix);
        if self.splices.contains_key(&full) {
            return Err(Fault::new(at, format!("`{full}` is the name of a splice already")));
        }
        if let Some(other) = self.dag.find(&full) {
            return Err(Fault::new(at, format!("node `{full}` is defined twice{}", self.defined(other, place))));
        }
        let description = self.description(description);
        let directory = self.dag.directories.add(&join(&scope.directory, &directory)).map_or(0, |(number, _)| number);
        let node = Node { kind, noop, done, description, directory, ..Node::new() };
        self.add_node(&full, node, scope.number, place);
        Ok(())
    }

    /// Commands about the DAG as a whole.
    pub(super) fn whole_dag(&mut self, scope: &Scope, keyword: &str, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let splice = scope.prefix.ends_with('+');
        if splice {
            self.warn(place, Fault::new(0, format!("`{keyword}` has no effect in a splice")));
        }
        let path = |name: &str| join(&scope.directory, name);
        match keyword {
            "CONFIG" => {
                let (file, at) = need_unquoted(lexer, "a file")?;
                end(lexer)?;
                match &self.dag.config {
                    _ if splice => {}
                    Some(other) if *other != path(&file) => {
                        return Err(Fault::new(
                            at,
                            format!("a second `CONFIG`; the first names `{}`", show(other.as_bytes())),
                        ));
                    }
                    _ => self.dag.config = Some(path(&file)),
                }
            }
            "DOT" => {
                let (file, _) = need_unquoted(lexer, "a file")?;
                let mut dot = Dot { path: path(&file), update: false, overwrite: true, header: None };
                while let Some((word, at)) = lexer.word()? {
                    match () {
                        () if is(&word, "UPDATE") => dot.update = true,
                        () if is(&word, "DONT_UPDATE") => dot.update = false,
                        () if is(&word, "OVERWRITE") => dot.overwrite = true,
                        () if is(&word, "DONT_OVERWRITE") => dot.overwrite = false,
                        () if is(&word, "INCLUDE") => dot.header = Some(path(&need(lexer, "a file")?.0)),
                        () => {
                            return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                                .expected("`UPDATE`, `DONT-UPDATE`, `OVERWRITE`, `DONT-OVERWRITE` or `INCLUDE FILE`"));
                        }
                    }
                }
                if !splice {
                    self.dag.dot = Some(dot);
                }
            }
            "NODE_STATUS_FILE" => {
                let (file, _) = need_unquoted(lexer, "a file")?;
                let mut status = StatusFile { path: path(&file), interval_s: 60, always: false };
                while let Some((word, at)) = lexer.word()? {
                    if is(&word, "ALWAYS_UPDATE") {
                        status.always = true;
                    } else {
                        status.interval_s =
                            integer(&word, at, "a number of seconds, or `ALWAYS-UPDATE`", 0, i64::from(i32::MAX))?;
                    }
                }
                if !splice && self.dag.status_file.is_none() {
                    self.dag.status_file = Some(status);
                } else if !splice {
                    self.warn(place, Fault::new(0, "a second `NODE_STATUS_FILE` has no effect"));
                }
            }
            "JOBSTATE_LOG" => {
                let (file, _) = need_unquoted(lexer, "a file")?;
                end(lexer)?;
                if !splice && self.dag.jobstate_log.is_none() {
                    self.dag.jobstate_log = Some(path(&file));
                } else if !splice {
                    self.warn(place, Fault::new(0, "a second `JOBSTATE_LOG` has no effect"));
                }
            }
            "ENV" => {
                let (word, at) = need(lexer, "`SET` or `GET`")?;
                let set = is(&word, "SET");
                if !set && !is(&word, "GET") {
                    return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                        .expected("`SET` or `GET`"));
                }
                let (rest, at) = lexer.remain();
                if rest.is_empty() {
                    return Err(Fault::new(at, "`ENV` names no variables")
                        .expected("`ENV SET NAME=value;…` or `ENV GET NAME …`"));
                }
                let names =
                    || rest.split([' ', '\t', ',']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
                if !splice {
                    self.dag.env.push(if set { Env::Set(rest.to_owned()) } else { Env::Get(names()) });
                }
            }
            _ => {
                let (rest, at) = lexer.remain();
                if rest.is_empty() {
                    return Err(Fault::new(at, "`SET_JOB_ATTR` sets nothing").expected("`NAME = EXPRESSION`"));
                }
                if !splice {
                    self.dag.attributes.push(rest.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Commands about nodes, when all nodes are known.
    pub(super) fn about_nodes(&mut self, scope: &mut Scope, words: &str, line: &Line<'_>, start: Place) -> Done {
        let lexer = &mut Lexer::new(words);
        let place = Place { at: line.place(0), ..start };
        let Some((keyword, _)) = lexer.word()? else { return Ok(()) };
        match keyword.to_ascii_uppercase().replace('-', "_").as_str() {
            "PARENT" => self.parents(scope, false, lexer, place),
            "WEAK" => match need(lexer, "`PARENT`")? {
                (word, _) if is(&word, "PARENT") => self.parents(scope, true, lexer, place),
                (_, at) => Err(Fault::new(at, "`WEAK` is not followed by `PARENT`").expected("`WEAK PARENT`")),
            },
            "SCRIPT" => self.script(scope, lexer, place),
            "RETRY" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "how often the node is tried again")?;
                let retries = integer(&word, at, "a number that is not negative", 0, i64::from(i32::MAX))?;
                let mut unless = None;
                if let Some((word, at)) = lexer.word()? {
                    if !is(&word, "UNLESS_EXIT") {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                            .expected("`UNLESS-EXIT CODE` or the end of the line"));
                    }
                    let (word, at) = need(lexer, "an exit code")?;
                    unless = Some(signed(&word, at, "an exit code")?);
                }
                end(lexer)?;
                let set = |node: &mut Node| (node.retries, node.unless_exit) = (retries, unless.or(node.unless_exit));
                self.each(scope, node, place, Some("be tried again"), set)
            }
            "ABORT_DAG_ON" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "an exit code")?;
                let mut abort = AbortOn { exit: signed(&word, at, "an exit code")?, code: None };
                if let Some((word, at)) = lexer.word()? {
                    if !is(&word, "RETURN") {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                            .expected("`RETURN CODE` or the end of the line"));
                    }
                    let (word, at) = need(lexer, "an exit code")?;
                    abort.code = Some(integer(&word, at, "an exit code of 0 to 255", 0, 255)?);
                }
                end(lexer)?;
                if let Some(final_node) = self.one(scope, &node.0)
                    && self.dag.node(final_node).is_some_and(|node| node.kind == Kind::Final)
                {
                    return Err(Fault::new(
                        node.1,
                        format!("`{}` is the `FINAL` node: it can't abort the DAG", node.0),
                    ));
                }
                self.each(scope, node, place, None, |node| node.abort_on = Some(abort))
            }
            "VARS" => self.vars(scope, lexer, place),
            "PRIORITY" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "a priority")?;
                let priority = signed(&word, at, "a whole number")?;
                end(lexer)?;
                self.each(scope, node, place, Some("have a priority"), |node| node.priority = priority)
            }
            "PRE_SKIP" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "an exit code")?;
                let code = integer(&word, at, "an exit code of 0 to 255", 0, 255)?;
                end(lexer)?;
                if code == 0 {
                    self.warn(
                        place,
                        Fault::new(at, "a PRE script that exits 0 succeeded: `PRE_SKIP` of 0 has no effect"),
                    );
                }
                self.each(scope, node, place, None, |node| node.pre_skip = Some(code))
            }
            "TOLERANCE" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "how many of the node's jobs may fail")?;
                let mut percent = word.ends_with('%');
                let value =
                    integer(word.trim_end_matches('%'), at, "a number or a percentage", 0, i64::from(i32::MAX))?;
                if !percent && lexer.peek()?.is_some_and(|(word, _)| word == "%") {
                    lexer.word()?;
                    percent = true;
                }
                let fail_fast = match lexer.word()? {
                    None => None,
                    Some((word, _)) if is(&word, "FAIL_FAST") => Some(true),
                    Some((word, _)) if is(&word, "WAIT") => Some(false),
                    Some((word, at)) => {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                            .expected("`FAIL-FAST`, `WAIT` or the end of the line"));
                    }
                };
                end(lexer)?;
                self.each(scope, node, place, None, |node| {
                    node.tolerance = Some(Tolerance { value, percent, fail_fast })
                })
            }
            "DONE" => {
                let (name, at) = need(lexer, "a node")?;
                end(lexer)?;
                if is(&name, "ALL_NODES") {
                    return Err(Fault::new(at, "`DONE` can't be for `ALL_NODES`").expected("a node"));
                }
                if self.rescue && name.starts_with("_condor_join_node") && self.one(scope, &name).is_none() {
                    return Ok(());
                }
                let node = self.find_node(scope, &name, at)?;
                match self.dag.nodes.get_mut(node as usize) {
                    Some(node) if matches!(node.kind, Kind::Job | Kind::Subdag) => node.done = true,
                    // A rescue file of DAGMan names its joins: they follow from their parents.
                    Some(node) if node.kind == Kind::Join => {}
                    _ => {
                        let message = format!("node `{name}` can't be `DONE`: only `JOB` and `SUBDAG` nodes can");
                        self.warn(place, Fault::new(at, message));
                    }
                }
                Ok(())
            }
            "CATEGORY" => {
                let node = need(lexer, "a node")?;
                let (name, _) = need(lexer, "a category")?;
                end(lexer)?;
                let category = self.category(scope, &name);
                self.each(scope, node, place, Some("be in a category"), |node| node.category = Some(category))
            }
            "MAXJOBS" => {
                let (name, _) = need(lexer, "a category")?;
                let (word, at) = need(lexer, "a number of nodes")?;
                let limit = integer(&word, at, "a number that is not negative", 0, i64::from(i32::MAX))?;
                end(lexer)?;
                let category = self.category(scope, &name);
                if let Some(category) = self.dag.categories.get_mut(category as usize) {
                    category.limit = Some(limit);
                }
                Ok(())
            }
            "SAVE_POINT_FILE" => self.save_point(scope, lexer, place),
            "CONNECT" => self.connect(scope, lexer, place),
            pin => {
                let (name, at) = need(lexer, "a node")?;
                let (word, number_at) = need(lexer, "the pin's number")?;
                let pin_number = integer(&word, number_at, "a number, from 1", 1, i64::from(i32::MAX))?;
                end(lexer)?;
                let node = self.find_node(scope, &name, at)?;
                let pins = if pin == "PIN_IN" { &mut scope.pins_in } else { &mut scope.pins_out };
                pins.entry(pin_number).or_default().push(node);
                Ok(())
            }
        }
    }

    pub(super) fn parents(&mut self, scope: &Scope, weak: bool, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let mut lists = [Vec::new(), Vec::new()];
        let mut child_at = None;
        let mut unknown = Vec::new();
        while let Some((word, at)) = lexer.word()? {
            let [parents, children] = &mut lists;
            if is(&word, "CHILD") {
                if parents.is_empty() && unknown.is_empty() {
                    return Err(Fault::new(at, "no parents").expected("`PARENT NODE … CHILD NODE …`"));
                }
                child_at = Some(at);
                continue;
            }
            let list = if child_at.is_some() { children } else { parents };
            let terminal = child_at.is_none();
            if let Some(splice) = self.splice_of(scope, &word) {
                let nodes = if terminal { &splice.terminal } else { &splice.initial };
                if nodes.is_empty() {
                    unknown.push(Fault::new(at, format!("splice `{word}` has no nodes")));
                }
                if list.len() + nodes.len() > MAX_EDGES {
                    self.stop(place, format!("the DAG has more than {MAX_EDGES} edges"));
                    return Ok(());
                }
                list.extend_from_slice(nodes);
                continue;
            }
            match self.one(scope, &word) {
                Some(node) if self.dag.node(node).is_some_and(Node::has_edges) => list.push(node),
                Some(_) => {
                    let message =
                        format!("node `{word}` can't have parents or children: only `JOB` and `SUBDAG` nodes can");
                    unknown.push(Fault::new(at, message));
                }
                None if unknown.len() < MAX_FINDINGS => unknown.push(self.unknown(scope, &word, at)),
                None => {}
            }
        }
        let [mut parents, mut children] = lists;
        match child_at {
            _ if !unknown.is_empty() => {}
            None => return Err(Fault::new(lexer.end(), "no `CHILD`").expected("`PARENT NODE … CHILD NODE …`")),
            Some(at) if children.is_empty() => {
                return Err(Fault::new(at, "no children").expected("a node after `CHILD`"));
            }
            _ => {}
        }
        // The last one goes the way of every other fault.
        if let Some(last) = unknown.pop() {
            let text = self.text(place.file);
            let line = Reader::new(&text, place.at).line();
            for fault in unknown {
                let at = line.as_ref().map_or(place.at, |line| line.place(fault.at));
                self.error(Place { at, ..place }, fault);
            }
            return Err(last);
        }
        for list in [&mut parents, &mut children] {
            list.sort_unstable();
            list.dedup();
        }
        let command = number(self.commands.len());
        self.commands.push(place);
        if parents.len() > 1 && children.len() > 1 {
            let join = loop {
                self.joins += 1;
                let name = format!("{}_condor_join_node{}", scope.prefix, self.joins);
                if self.dag.find(&name).is_none() {
                    break name;
                }
            };
            let node = Node { kind: Kind::Join, noop: true, ..Node::new() };
            let Some(join) = self.add_node(&join, node, scope.number, place) else { return Ok(()) };
            self.link(&parents, &[join], weak, command, place);
            self.link(&[join], &children, false, command, place);
        } else {
            self.link(&parents, &children, weak, command, place);
        }
        Ok(())
    }

    pub(super) fn link(&mut self, parents: &[u32], children: &[u32], weak: bool, command: u32, place: Place) {
        if self.edges.len().saturating_add(parents.len().saturating_mul(children.len())) > MAX_EDGES {
            return self.stop(place, format!("the DAG has more than {MAX_EDGES} edges"));
        }
        for parent in parents {
            self.edges.extend(children.iter().map(|child| Edge { parent: *parent, child: *child, weak, command }));
            if let Some((_, children)) = self.linked.get_mut(*parent as usize) {
                *children = true;
            }
        }
        for child in children {
            if let Some((parents, _)) = self.linked.get_mut(*child as usize) {
                *parents = true;
            }
        }
    }

    /// `SCRIPT [DEFER STATUS SECONDS] [DEBUG FILE STREAM] PRE|POST|HOLD NODE COMMAND`.
    pub(super) fn script(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let mut script = Script { command: String::new(), defer: None, debug: None };
        let kind = loop {
            let (word, at) = need(lexer, "`PRE`, `POST` or `HOLD`")?;
            match () {
                () if is(&word, "PRE") => break ScriptKind::Pre,
                () if is(&word, "POST") => break ScriptKind::Post,
                () if is(&word, "HOLD") => break ScriptKind::Hold,
                () if is(&word, "DEFER") => {
                    let (status, at) = need(lexer, "an exit code")?;
                    let status = signed(&status, at, "an exit code")?;
                    let (seconds, at) = need(lexer, "a number of seconds")?;
                    script.defer =
                        Some((status, integer(&seconds, at, "a number of seconds", 0, i64::from(i32::MAX))?));
                }
                () if is(&word, "DEBUG") => {
                    let (file, _) = need_unquoted(lexer, "a file")?;
                    let (stream, at) = need(lexer, "`STDOUT`, `STDERR` or `ALL`")?;
                    let all = is(&stream, "ALL");
                    let (out, err) = (all || is(&stream, "STDOUT"), all || is(&stream, "STDERR"));
                    if !out && !err {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(stream.as_bytes())))
                            .expected("`STDOUT`, `STDERR` or `ALL`"));
                    }
                    script.debug = Some((file.into_owned(), out, err));
                }
                () => {
                    return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes()))).expected(
                        "`PRE`, `POST` or `HOLD`, after `DEFER STATUS SECONDS` and `DEBUG FILE STREAM` if any",
                    ));
                }
            }
        };
        let node = need(lexer, "a node")?;
        let (command, at) = lexer.remain();
        if command.is_empty() {
            return Err(Fault::new(at, "no script").expected("a program and its arguments"));
        }
        command.clone_into(&mut script.command);
        let new = number(self.dag.scripts.len());
        self.dag.scripts.push(script);
        self.each(scope, node, place, None, |node| {
            if let Some(slot) = node.scripts.get_mut(kind as usize) {
                *slot = Some(new);
            }
        })
    }

    pub(super) fn vars(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let node = need(lexer, "a node")?;
        let mut vars = Vars { append: None, pairs: Vec::new() };
        let placement = match lexer.peek()? {
            Some((word, _)) if is(&word, "APPEND") => Some(true),
            Some((word, _)) if is(&word, "PREPEND") => Some(false),
            _ => None,
        };
        if placement.is_some() {
            vars.append = placement;
            lexer.word()?;
        }
        while let Some((name, at, value)) = lexer.assignment()? {
            let attribute =
                name.strip_prefix('+').or_else(|| name.get(..3).filter(|my| is(my, "MY.")).map(|_| &name[3..]));
            if attribute.is_some_and(str::is_empty) {
                return Err(Fault::new(at, format!("`{name}` names no attribute")).expected("`+NAME` or `MY.NAME`"));
            }
            if name.get(..5).is_some_and(|head| is(head, "QUEUE")) {
                return Err(Fault::new(at, format!("variable `{name}` begins with `queue`")).expected("another name"));
            }
            vars.pairs.push((attribute.map_or_else(|| name.to_owned(), |name| format!("MY.{name}")), value));
        }
        if vars.pairs.is_empty() {
            return Err(Fault::new(lexer.end(), "no variables").expected("`NAME=\"value\"`"));
        }
        let set = number(self.dag.vars.len());
        self.dag.vars.push(vars);
        let mut links = std::mem::take(&mut self.dag.var_links);
        let done = self.each(scope, node, place, None, |node| {
            links.push((node.vars, set));
            node.vars = Some(number(links.len() - 1));
        });
        self.dag.var_links = links;
        done
    }

    pub(super) fn category(&mut self, scope: &Scope, name: &str) -> u32 {
        let full = if name.starts_with('+') { name.to_owned() } else { format!("{}{name}", scope.prefix) };
        if let Some(known) = self.category_numbers.get(&full) {
            return *known;
        }
        let new = number(self.dag.categories.len());
        self.dag.categories.push(Category { name: full.clone(), limit: None });
        self.category_numbers.insert(full, new);
        new
    }

    pub(super) fn save_point(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let (name, at) = need(lexer, "a node")?;
        let file = lexer.unquoted()?;
        end(lexer)?;
        if is(&name, "ALL_NODES") {
            return Err(Fault::new(at, "a save point can't be for `ALL_NODES`").expected("a node"));
        }
        let node = self.find_node(scope, &name, at)?;
        let dag_file =
            self.files.get(place.file as usize).map_or("", |file| file.name.rsplit('/').next().unwrap_or_default());
        let file = match file {
            Some((file, _)) if !file.is_empty() => file.into_owned(),
            _ => format!("{name}-{dag_file}.save"),
        };
        let new = number(self.dag.save_points.len());
        match self.dag.nodes.get_mut(node as usize) {
            Some(node) if node.has_edges() => node.save_point = Some(new),
            _ => {
                return Err(Fault::new(
                    at,
                    format!("node `{name}` can't have a save point: only `JOB` and `SUBDAG` nodes can"),
                ));
            }
        }
        self.dag.save_points.push(file);
        Ok(())
    }

    /// `CONNECT SPLICE SPLICE`: each pin out of the first is the parent of the pin in of the same number of the second.
    pub(super) fn connect(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let (first, first_at) = need(lexer, "a splice")?;
        let (second, second_at) = need(lexer, "a splice")?;
        end(lexer)?;
        let splice = |name: &str, at| {
            let names = self.splices.keys().filter_map(|full| full.strip_prefix(scope.prefix.as_str()));
            let few = self.findings.len() < MAX_FINDINGS;
            let near = || {
                nearest(name, names.take(if few { usize::MAX } else { 0 }))
                    .map(|near| format!("did you mean `{near}`?"))
            };
            self.splice_of(scope, name)
                .ok_or_else(|| Fault::new(at, format!("no splice `{}`", show(name.as_bytes()))).hint(near()))
        };
        let (from, to) = (splice(&first, first_at)?, splice(&second, second_at)?);
        let last = |pins: &BTreeMap<u32, _>| pins.last_key_value().map(|(pin, _)| *pin);
        let Some(pins_out) = last(&from.pins_out) else {
            return Err(Fault::new(first_at, format!("splice `{first}` has no `PIN_OUT`")));
        };
        let Some(pins_in) = last(&to.pins_in) else {
            return Err(Fault::new(second_at, format!("splice `{second}` has no `PIN_IN`")));
        };
        if pins_out != pins_in {
            let message = format!("splice `{first}` has {pins_out} pins out, splice `{second}` {pins_in} pins in");
            return Err(Fault::new(first_at, message).expected("as many of the one as of the other"));
        }
        let missing = |pins: &BTreeMap<u32, _>| (1..=pins_out).find(|pin| !pins.contains_key(pin));
        if let Some(pin) = missing(&from.pins_out) {
            return Err(Fault::new(first_at, format!("splice `{first}` has no node for `PIN_OUT` {pin}")));
        }
        if let Some(pin) = missing(&to.pins_in) {
            return Err(Fault::new(second_at, format!("splice `{second}` has no node for `PIN_IN` {pin}")));
        }
        let command = number(self.commands.len());
        self.commands.push(place);
        for (parents, children) in from.pins_out.values().zip(to.pins_in.values()) {
            for node in parents.iter().chain(children) {
                if !self.dag.node(*node).is_some_and(Node::has_edges) {
                    let name = self.dag.name(*node);
                    return Err(Fault::new(0, format!("node `{name}` can't have parents or children")));
                }
            }
            self.link(parents, children, false, command, place);
        }
        let orphan = (to.first..to.end).find(|node| {
            let parents = self.linked.get(*node as usize).is_some_and(|(parents, _)| *parents);
            !parents && self.dag.node(*node).is_some_and(Node::has_edges)
        });
        match orphan {
            Some(node) => {
                let message = format!("node `{}` has neither a parent nor a `PIN_IN`", self.dag.name(node));
                Err(Fault::new(second_at, message))
            }
            None => Ok(()),
        }
    }
}
