"""Why nothing of ``scorebook.coursework.class_guidance`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_classifier_free": MEASURES,
    "check_classifier_guidance": MEASURES,
    "check_label_dropping": MEASURES,
}
