polkit.addRule(function (action, subject) {
  if (
    action.id == "org.example.restart" &&
    (subject.isInGroup("operators") || subject.user === "anna")
  ) {
    return polkit.Result.YES;
  }
  if (action.id.indexOf("org.example.") == 0 && !subject.local) return polkit.Result.NO;
});
