"""The sample class of the assignment on the KL divergence: what each student hands in and earns.

Every answer that is not given here is the reference's. The proof (4 marks) waits for a person.
"""

from vaecourse.grading.sample import SampleStudent

EXCHANGED_Q1 = """
def kl_gaussian(q_loc, q_scale_tril, p_loc, p_scale_tril):
    inverse = torch.linalg.inv(q_scale_tril)
    m = inverse @ p_scale_tril
    d = (inverse @ (q_loc - p_loc)[..., None])[..., 0]
    ratio = q_scale_tril.diagonal(0, -2, -1) / p_scale_tril.diagonal(0, -2, -1)
    log_det = ratio.log().sum(-1)
    return (m * m).sum((-1, -2)) / 2 + (d * d).sum(-1) / 2 - q_loc.size(-1) / 2 + log_det
"""

EXCHANGED_Q2 = """
def kl_from_p_draws(log_q, log_p):
    ratio = log_p - log_q
    return ratio.mean(dim=0), ratio.std(dim=0) / len(ratio) ** 0.5
"""

HALF_DROPPED_Q1 = """
def kl_gaussian(q_loc, q_scale_tril, p_loc, p_scale_tril):
    m = torch.linalg.solve_triangular(p_scale_tril, q_scale_tril, upper=False)
    d = torch.linalg.solve_triangular(p_scale_tril, (q_loc - p_loc)[..., None], upper=False)
    diagonals = [s.diagonal(dim1=-2, dim2=-1) for s in (q_scale_tril, p_scale_tril)]
    log_det = 2 * (diagonals[1].log() - diagonals[0].log()).sum(-1)
    return (m**2).sum((-2, -1)) + (d**2).sum((-2, -1)) - q_loc.shape[-1] + log_det
"""

SPREAD_OF_ONE_TERM_Q2 = """
def kl_from_p_draws(log_q, log_p):
    terms = torch.exp(log_q - log_p) * (log_q - log_p)
    return terms.mean(0), terms.std(0)
"""

NAN_AT_ZERO_Q3 = """
def kl_categorical(q_probs, p_probs):
    return (q_probs * torch.log(q_probs / p_probs)).sum(-1)
"""

NOISY_Q1 = """
import sys
import warnings

def kl_gaussian(q_loc, q_scale_tril, p_loc, p_scale_tril):
    warnings.warn("I work in float64")
    print("inverting ...", file=sys.stderr)
    D = q_loc.shape[-1]
    inverse = torch.cholesky_inverse(p_scale_tril.double())
    shift = (q_loc - p_loc).double()
    covariance = (q_scale_tril @ q_scale_tril.mT).double()
    trace = torch.einsum("...ij,...ji->...", inverse, covariance)
    quadratic = torch.einsum("...i,...ij,...j->...", shift, inverse, shift)
    log_det = 0
    for i in range(D):
        log_det = log_det + 2 * p_scale_tril[..., i, i].log() - 2 * q_scale_tril[..., i, i].log()
    return (trace + quadratic + log_det - D) / 2
"""

CONTROLLED_Q2 = """
def kl_from_p_draws(log_q, log_p):
    # E_p[w - 1] = 0: taking it off keeps the mean, and no term is ever negative.
    w = (log_q - log_p).exp()
    terms = w * w.log() - (w - 1)
    return terms.mean(0), (terms.var(0) / terms.shape[0]).sqrt()
"""

LOOP_Q3 = """
import math

def kl_categorical(q_probs, p_probs):
    q_rows, p_rows = q_probs.reshape(-1, q_probs.shape[-1]), p_probs.reshape(-1, p_probs.shape[-1])
    values = []
    for q_row, p_row in zip(q_rows.tolist(), p_rows.tolist()):
        value = 0.0
        for q, p in zip(q_row, p_row):
            if q > 0:
                value += math.inf if p == 0 else q * math.log(q / p)
        values.append(value)
    return torch.tensor(values).reshape(q_probs.shape[:-1])
"""

CRASH_Q2 = """
import os

def kl_from_p_draws(log_q, log_p):
    os._exit(1)
"""

STUDENTS = [
    SampleStudent("sample-ada", "Ada", "Okafor", story="Everything right: the reference answers."),
    SampleStudent(
        "sample-ben",
        "Ben",
        "Lindqvist, Jr.",
        story="KL(p‖q) where KL(q‖p) is asked, in questions 1 and 2.",
        answers={"q1-answer": EXCHANGED_Q1, "q2-answer": EXCHANGED_Q2},
        marks={"q1-value": 0, "q2-estimate": 0},
    ),
    SampleStudent(
        "sample-chen",
        "Chen",
        "Ruiz",
        story="The ½ dropped, the spread of one term for that of the mean, 0 ln 0 = nan, "
        "and one claim of six misjudged (that a KL estimate cannot be negative).",
        answers={
            "q1-answer": HALF_DROPPED_Q1,
            "q2-answer": SPREAD_OF_ONE_TERM_Q2,
            "q3-answer": NAN_AT_ZERO_Q3,
            "q5-answer": 'true_claims = {"A", "E"}',
        },
        marks={"q1-value": 0, "q2-error": 0, "q3-zeros": 0, "q5-claims": 2},
    ),
    SampleStudent(
        "sample-dana",
        "Dana",
        "O'Neill",
        story="Right in another style: inverses, loops, a control variate, warnings on stderr.",
        answers={"q1-answer": NOISY_Q1, "q2-answer": CONTROLLED_Q2, "q3-answer": LOOP_Q3},
    ),
    SampleStudent(
        "sample-eli",
        "Eli",
        "Zhang",
        base="release",
        story="The untouched release.",
        marks={
            "q1-value": 0,
            "q1-batch": 0,
            "q2-estimate": 0,
            "q2-error": 0,
            "q3-value": 0,
            "q3-zeros": 0,
            "q4-proof": 0,
            "q5-claims": 0,
        },
    ),
    SampleStudent(
        "sample-fay",
        "Fay",
        "Moreau",
        story="Ends the Python process in question 2; question 1 keeps its marks.",
        answers={"q2-answer": CRASH_Q2},
        marks={"q2-estimate": 0, "q2-error": 0, "q3-value": 0, "q3-zeros": 0, "q5-claims": 0},
    ),
    SampleStudent("sample-gus", "Gus", "Ito", base=None, story="Hands in nothing."),
]
