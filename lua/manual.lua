-- manual.lua - man pages, and what bash, zsh and fish complete, written from what --help is written from: the tables of
-- lua/main.lua and the verbs. See write() at the end.
--
-- tool: { version, sections, variables, verb = function(name), options_of = function(verb) } of lua/main.lua.

local manual = {}

-- The verbs in the order of --help.
local function each_verb(tool, visit)
  for _, s in ipairs(tool.sections) do
    for _, name in ipairs(s[2]) do visit(tool.verb(name)) end
  end
end

-- ---- Man pages ------------------------------------------------------------------------------------------------------

-- Text as roff takes it: no line begins a request, and a hyphen stays one.
local function roff(text) return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("^([.'])", "\\&%1")) end

local function page(tool, name, summary, out)
  local title = ('.TH %s 1 "" "quernel %s" "Quernel"\n.SH NAME\n%s \\- %s'):format(roff(name:upper()), tool.version,
    roff(name), roff(summary))
  return title .. "\n" .. table.concat(out, "\n") .. "\n"
end

local function add(out, ...) table.move({ ... }, 1, select("#", ...), #out + 1, out) end

-- ".TP": a term with its meaning.
local function add_term(out, term, text) add(out, ".TP", "\\fB" .. roff(term) .. "\\fR", roff(text)) end

local function tool_page(tool)
  local out = { ".SH SYNOPSIS", "\\fBquernel\\fR \\fIVERB\\fR [\\fIOPTIONS\\fR]" }
  local names = {}
  for _, s in ipairs(tool.sections) do
    add(out, ".SH " .. roff(s[1]:upper()))
    for _, name in ipairs(s[2]) do
      add_term(out, name, tool.verb(name).summary)
      names[#names + 1] = ("\\fBquernel\\-%s\\fR(1)"):format(roff(name))
    end
  end
  add(out, ".SH ENVIRONMENT")
  for _, x in ipairs(tool.variables) do add_term(out, x[1], x[2]) end
  add(out, ".SH SEE ALSO", table.concat(names, ",\n"))
  return page(tool, "quernel", "kernels for matrix products with quantized weights", out)
end

local function verb_page(tool, v)
  local out = { ".SH SYNOPSIS", ("\\fBquernel %s\\fR %s"):format(v.name, roff(v.usage)) }
  if v.about then add(out, ".SH DESCRIPTION", roff((v.about:gsub("\n", " ")))) end
  for _, group in ipairs(tool.groups_of(v)) do
    add(out, ".SH " .. roff(group.title:upper()))
    for _, o in ipairs(group) do add_term(out, o.name, o.text) end
  end
  add(out, ".SH EXAMPLES", ".nf")
  for _, text in ipairs(v.examples) do add(out, roff(("quernel %s %s"):format(v.name, text):gsub(" $", ""))) end
  add(out, ".fi", ".SH SEE ALSO", "\\fBquernel\\fR(1)")
  return page(tool, "quernel-" .. v.name, v.summary, out)
end

-- ---- Completion -----------------------------------------------------------------------------------------------------

local function option_names(tool, v)
  local names = {}
  for i, o in ipairs(tool.options_of(v)) do names[i] = o[1] end
  names[#names + 1] = "--help"
  return names
end

local bash = [==[
# What bash completes behind `quernel`. Made from the help by quernel --manual.
_quernel() {
  local words= current=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    words='%s'
  elif [ "${current#-}" != "$current" ]; then
    case ${COMP_WORDS[1]} in
%s    esac
  fi
  [ -z "$words" ] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _quernel quernel
]==]

local function bash_completion(tool)
  local verbs, cases = {}, {}
  each_verb(tool, function(v)
    verbs[#verbs + 1] = v.name
    cases[#cases + 1] = ("      %s) words='%s' ;;\n"):format(v.name, table.concat(option_names(tool, v), " "))
  end)
  table.move({ "help", "--help", "--version" }, 1, 3, #verbs + 1, verbs)
  return bash:format(table.concat(verbs, " "), table.concat(cases))
end

local zsh = [==[
#compdef quernel
# What zsh completes behind `quernel`. Made from the help by quernel --manual.
local -a verbs
verbs=(
%s)
if (( CURRENT == 2 )); then
  _describe verb verbs
  return
fi
local verb=$words[2]
shift words
(( CURRENT-- ))
case $verb in
%s  *) _files ;;
esac
]==]

-- A word in single quotes, in which : [ and ] mean themselves.
local function zsh_quoted(text) return (text:gsub("[%[%]:\\]", "\\%0"):gsub("'", "'\\''")) end

local function zsh_completion(tool)
  local verbs, cases = {}, {}
  each_verb(tool, function(v)
    verbs[#verbs + 1] = ("  '%s:%s'\n"):format(v.name, zsh_quoted(v.summary))
    local lines = { ("  %s) _arguments \\\n"):format(v.name) }
    for _, o in ipairs(tool.options_of(v)) do
      lines[#lines + 1] = ("    '%s%s[%s]%s' \\\n"):format(o.many and "*" or "", o[1], zsh_quoted(o[3]),
        o[2] and (":%s:_files"):format(zsh_quoted(o[2])) or "")
    end
    lines[#lines + 1] = "    '*:file:_files' ;;\n"
    cases[#cases + 1] = table.concat(lines)
  end)
  return zsh:format(table.concat(verbs), table.concat(cases))
end

local function fish_quoted(text) return "'" .. text:gsub("[\\']", "\\%0") .. "'" end

local function fish_completion(tool)
  local out = { "# What fish completes behind `quernel`. Made from the help by quernel --manual." }
  each_verb(tool, function(v)
    out[#out + 1] = ("complete -c quernel -f -n __fish_use_subcommand -a %s -d %s"):format(v.name,
      fish_quoted(v.summary))
    for _, o in ipairs(tool.options_of(v)) do
      local name = o[1]:match "^%-%-(.*)" and "-l " .. o[1]:sub(3) or "-s " .. o[1]:sub(2)
      out[#out + 1] = ("complete -c quernel -n '__fish_seen_subcommand_from %s' %s%s -d %s"):format(v.name, name,
        o[2] and " -r" or "", fish_quoted(o[3]))
    end
  end)
  return table.concat(out, "\n") .. "\n"
end

-- ---- All of it ------------------------------------------------------------------------------------------------------

-- Write into a folder that is laid out as PREFIX/share or ~/.local/share. -> true, or nil, message, code.
function manual.write(q, tool, folder)
  local files = {
    ["man/man1/quernel.1"] = tool_page(tool),
    ["bash-completion/completions/quernel"] = bash_completion(tool),
    ["zsh/site-functions/_quernel"] = zsh_completion(tool),
    ["fish/vendor_completions.d/quernel.fish"] = fish_completion(tool),
  }
  each_verb(tool, function(v) files[("man/man1/quernel-%s.1"):format(v.name)] = verb_page(tool, v) end)
  for name, text in pairs(files) do
    local path = folder .. "/" .. name
    local ok, why, code = q.native.make_folder(path:match "^(.*)/")
    if ok then ok, why, code = q.native.file_write(path, text) end
    if not ok then return nil, why, code end
  end
  return true
end

return manual
