// The quizzes: Check compares the ticks with the truth and shows each option's feedback.
for (const quiz of document.querySelectorAll("fieldset.quiz")) {
  const options = [...quiz.querySelectorAll(".quiz-option")];
  const status = quiz.querySelector(".quiz-status");

  options.forEach((option, i) => {
    const feedback = option.querySelector(".quiz-feedback");
    feedback.id = `${quiz.id}-feedback-${i + 1}`;
  });

  quiz.querySelector(".quiz-check").addEventListener("click", () => {
    let judged = 0;
    for (const option of options) {
      const box = option.querySelector("input");
      const feedback = option.querySelector(".quiz-feedback");
      const truth = option.dataset.true === "true";
      const right = box.checked === truth;
      judged += right;
      option.dataset.judged = right ? "right" : "wrong";
      feedback.querySelector(".quiz-verdict").textContent =
        (right ? "✓ " : "✗ ") + (truth ? "True." : "False.");
      feedback.hidden = false;
      box.setAttribute("aria-describedby", feedback.id);
    }
    status.textContent =
      judged === options.length
        ? `All ${judged} judged correctly.`
        : `${judged} of ${options.length} judged correctly. Change your ticks and check again.`;
  });

  quiz.addEventListener("change", () => {
    for (const option of options) {
      delete option.dataset.judged;
      option.querySelector(".quiz-feedback").hidden = true;
      option.querySelector("input").removeAttribute("aria-describedby");
    }
    status.textContent = "";
  });
}
