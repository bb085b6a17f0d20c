"""Several sites train one model together without sharing a sample, and see the pooled and each other's spectra.

Baker, Khanal, Calhoun, Pearlmutter, Plis, "Peering Beyond the Gradient Veil with Distributed Auto Differentiation"
(arXiv 2102.09631): sites exchange the factors of a gradient, or their leading directions, instead of the gradient.
``docs/sites.md`` says what leaves a site, and what can be inferred from it.
"""

from autospec.sites.contribution import Choice as Choice
from autospec.sites.parts import WAYS as WAYS
from autospec.sites.parts import Part as Part
from autospec.sites.parts import exact_part as exact_part
from autospec.sites.parts import leading_part as leading_part
from autospec.sites.training import SiteTraining as SiteTraining
