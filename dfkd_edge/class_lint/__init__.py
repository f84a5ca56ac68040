"""What is wrong or doubtful about a class list, as text and as the teacher sees it."""
