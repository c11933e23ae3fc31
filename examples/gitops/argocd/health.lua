-- How Argo CD judges a MailMigration, a MailboxSync and a MailServer. It runs without Lua's string library.
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waiting for the operator" }
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is_true(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

local ready = conditions.Ready
if ready == nil then
  return { status = "Progressing", message = "waiting for the operator" }
end
-- A person has to act.
if is_true("Stalled") then
  return { status = "Degraded", message = conditions.Stalled.message }
end
if ready.reason == "Suspended" then
  return { status = "Suspended", message = ready.message }
end
-- MailboxSyncs are still to be made, changed or removed.
if is_true("Reconciling") then
  return { status = "Progressing", message = conditions.Reconciling.message }
end
-- Not ready, and nobody has to act: it is tried again.
if ready.status ~= "True" then
  return { status = "Progressing", message = ready.message }
end
-- Good, but not the whole truth: messages are not copied, or at the end nobody knows whether they are.
local copied = conditions.AllCopied
if copied ~= nil and (copied.status == "False" or (copied.status ~= "True" and is_true("Complete"))) then
  return { status = "Healthy", message = ready.message .. "; " .. copied.message }
end
return { status = "Healthy", message = ready.message }
