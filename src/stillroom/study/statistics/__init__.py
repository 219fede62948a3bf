"""What a difference between recipes is worth: errors, intervals, and differences too small to see.

Three things vary between one run of a study and the next, and each has its own error:

- *sampling*: the same student answers the same question otherwise. More repeats make it smaller.
- *question*: other questions could have been asked. Only more questions make it smaller.
- *training seed*: other rows could have been drawn, in another order. Only more seeds make it
  smaller.

An interval here speaks of new questions of the same kind and of new seeds. Arms are compared on
the same questions and the same seeds, so what questions and seeds do to all arms alike cancels.

The variance of a difference between two arms has two parts, which are estimated apart:

    V  =  (q - 2 r / S)  +  2 M / S

S is the number of seeds. M is the mean square of (arm x seed), over all arms of the study: what
training does to a student's mean, and what sampling does to it as well. Arms are taken to be
equally noisy, which three seeds of one arm alone could never tell. Where M has fewer than five
degrees of freedom, (arms - 1) x (seeds - 1), the mean square of seeds within arms stands in its
place, with arms x (seeds - 1): what a seed does to all arms alike is then counted as noise, which
makes an interval too wide and never too narrow, and costs less than to know the noise so badly.
r is what sampling alone makes
of M, from the mean square of (arm x seed x question); q is the usual squared error of a paired mean
over questions. q has all of the sampling in it, and so has M; the difference of the two counts it
once. M may by luck be less than r. It is not raised then: M has the degrees of freedom of its mean
square, all of them, only if it is left as it is.

The interval is the wider of two:

- value +- t sqrt(V), where t is the mean of the quantiles of both parts, weighted by the parts
  (Cochran and Cox 1950): the part of the questions has many degrees of freedom, that of the seeds
  few.
- value +- t sqrt(q): what the questions alone would allow if training had no noise. Where few seeds
  agree by luck, the first one is narrower than that, and wrong.

Where hardly anything is right, or wrong, questions agree by luck too. So q is at least what one
attempt more that is right would make of it, and one more that is wrong (after Bonett and Price
2012, who add a pair of each kind).

A p value is one less the level of the interval that just leaves zero out. The error of a score has
one more part, what a seed does to all arms. `scripts/check_intervals.py` measures how often such
intervals hold the truth; its tables are in docs/statistics.md.

Sources: Miller 2024, arXiv 2411.00640 (paired differences, questions as the sample); Clark 1973,
Journal of Verbal Learning and Verbal Behavior 12 (V, for subjects and items); Cochran and Cox 1950,
Experimental Designs, and Cochran 1964, Biometrics 20 (t); Searle, Casella and McCulloch 1992,
chapter 4 (variance components); Bonett and Price 2012, Journal of Educational and Behavioral
Statistics 37 (paired shares); Holm 1979.
"""
